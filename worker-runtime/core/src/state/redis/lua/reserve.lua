-- scope, id, hold. KEYS[1] is the prefix of what was seen.
local key = KEYS[1] .. 'i:' .. ARGV[1] .. ':' .. ARGV[2]
local found = seen(key)
if found[1] == 'first' then
  call('SET', key, 'P', 'PX', ARGV[3])
end
return found
