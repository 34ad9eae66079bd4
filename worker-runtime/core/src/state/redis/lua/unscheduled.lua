-- KEYS[1] is the prefix of Vumi's scheduler, then bucket and key of each entry that is kept elsewhere now.
local V = KEYS[1]
for i = 1, #ARGV, 2 do
  local bucket, key = V .. 'scheduled_keys.' .. ARGV[i], ARGV[i + 1]
  call('DEL', string.sub(key, 1, #V) == V and key or V .. key)
  call('SREM', bucket, key)
  call('SREM', V .. 'scheduled_keys', key)
  if call('EXISTS', bucket) == 0 then
    call('ZREM', V .. 'scheduled_timestamps', ARGV[i])
  end
end
