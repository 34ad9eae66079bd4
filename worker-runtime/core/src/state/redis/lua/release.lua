-- scope, id.
local key = KEYS[1] .. 'i:' .. ARGV[1] .. ':' .. ARGV[2]
if call('GET', key) == 'P' then
  call('DEL', key)
end
