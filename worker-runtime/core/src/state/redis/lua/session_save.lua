-- KEYS[1] is a session, then fields. One that is over is not begun again: it would never end.
if call('EXISTS', KEYS[1]) == 0 then
  return 0
end
for i = 1, #ARGV, 2 do
  call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
