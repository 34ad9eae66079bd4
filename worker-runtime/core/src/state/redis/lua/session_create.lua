-- KEYS[1] is a session, ARGV[1] its length in milliseconds or nothing, then its fields. The time is written as Vumi
-- writes it, with 12 digits.
call('DEL', KEYS[1])
call('HSET', KEYS[1], 'created_at', string.format('%.12g', micros() / 1000000))
for i = 2, #ARGV, 2 do
  call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
if ARGV[1] ~= '' then
  call('PEXPIRE', KEYS[1], ARGV[1])
end
return call('HGETALL', KEYS[1])
