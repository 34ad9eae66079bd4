-- KEYS[1] is the ledger's prefix. account, batch, order or nothing, which lifts it.
local L, account, batch, order = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if order then
  call('HSET', L .. 'o:' .. account, batch, order)
  call('SADD', L .. 'o', account)
else
  call('HDEL', L .. 'o:' .. account, batch)
  if call('EXISTS', L .. 'o:' .. account) == 0 then
    call('SREM', L .. 'o', account)
  end
end
return 1
