-- queue: its groups, each with its lanes.
local found = {}
for _, group in ipairs(call('SMEMBERS', groups)) do
  found[#found + 1] = { group, call('ZRANGE', waiting(group), 0, -1) }
end
return found
