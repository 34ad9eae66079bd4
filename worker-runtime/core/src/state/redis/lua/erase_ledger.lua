-- person, limit: messages of the person whose rows and trails are removed, after how many rows and trails that were.
local theirs, removed = L .. 'p:' .. ARGV[1], 0
local ids = call('ZRANGE', theirs, 0, ARGV[2] - 1)
for _, id in ipairs(ids) do
  -- A row that cannot be read goes too.
  removed = removed + purge_row(id) + purge_trail(id) + call('DEL', L .. 'r:' .. id)
end
if #ids > 0 then
  call('ZREM', theirs, unpack(ids))
end
return { removed, ids }
