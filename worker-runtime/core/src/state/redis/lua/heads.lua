-- queue, then lane and group of each lane: the first entry of each, nothing for one that is gone.
local found = {}
for i = 2, #ARGV, 2 do
  found[#found + 1] = call('LINDEX', list(ARGV[i], ARGV[i + 1]), 0)
end
return found
