-- queue, limit: messages on their way out.
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', leaving, '-inf', '+inf', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = call('HGET', left, id)
end
return found
