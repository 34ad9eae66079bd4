-- KEYS[1] is the ledger's prefix. Account, batch and order of each that is in force.
local L, found = KEYS[1], {}
for _, account in ipairs(call('SMEMBERS', L .. 'o')) do
  local orders = call('HGETALL', L .. 'o:' .. account)
  for i = 1, #orders, 2 do
    found[#found + 1] = { account, orders[i], orders[i + 1] }
  end
end
return found
