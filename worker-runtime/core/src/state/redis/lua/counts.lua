-- states: account, state and number of each that has rows.
sweep(now(), 1000)
local found = {}
for _, account in ipairs(call('SMEMBERS', L .. 'a')) do
  for _, state in ipairs(ARGV) do
    local rows = call('ZCARD', L .. 's:' .. account .. ':' .. state)
    if rows > 0 then
      found[#found + 1] = { account, state, rows }
    end
  end
end
return found
