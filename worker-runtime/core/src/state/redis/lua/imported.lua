-- KEYS[1] is the prefix of Vumi's failure worker, then bucket and key of each retry that is kept elsewhere now.
local V = KEYS[1]
for i = 1, #ARGV, 2 do
  local due = V .. 'retry_keys.' .. ARGV[i]
  call('SREM', due, ARGV[i + 1])
  if call('EXISTS', due) == 0 then
    call('ZREM', V .. 'retry_timestamps', ARGV[i])
  end
end
