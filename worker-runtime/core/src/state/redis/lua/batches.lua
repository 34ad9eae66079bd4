-- account, batch, state and number of each that has rows.
sweep(now(), 1000)
local found = {}
for _, batch in ipairs(call('SMEMBERS', L .. 'b')) do
  local account, label = string.match(batch, '^([^:]*):(.*)$')
  local counts = call('HGETALL', L .. 'b:' .. batch)
  for i = 1, #counts, 2 do
    found[#found + 1] = { account, label, counts[i], tonumber(counts[i + 1]) }
  end
end
return found
