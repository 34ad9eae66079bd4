-- scope, id, hold. KEYS[1] is the prefix of what was seen.
local key = KEYS[1] .. 'i:' .. ARGV[1] .. ':' .. ARGV[2]
local known = call('GET', key)
if not known then
  call('SET', key, 'P', 'PX', ARGV[3])
  return { 'first' }
elseif known == 'P' then
  return { 'pending', call('PTTL', key) }
end
return { 'seen', string.sub(known, 2) }
