-- account, remote id: JSON of the only row with it.
local t, found = now(), {}
for id in string.gmatch(call('GET', L .. 'x:' .. ARGV[1] .. ':' .. ARGV[2]) or '', '%S+') do
  settle(id, t)
  found[#found + 1] = call('GET', L .. 'r:' .. id) or nil
end
return #found == 1 and json(found[1])
