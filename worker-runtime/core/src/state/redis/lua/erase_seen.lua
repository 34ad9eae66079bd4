-- person: how many answers were removed.
local F, erased = KEYS[1], 0
local theirs = F .. 'p:' .. ARGV[1]
for _, item in ipairs(call('ZRANGE', theirs, 0, -1)) do
  local scope, id = string.match(item, '^([^:]*):(.*)$')
  erased = erased + call('DEL', F .. 'i:' .. item)
  call('ZREM', F .. 'o:' .. scope, id)
end
call('DEL', theirs)
return erased
