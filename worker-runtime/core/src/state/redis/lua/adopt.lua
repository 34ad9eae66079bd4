-- queue, limit, lease: messages on their way out whose lease is over, which are the caller's now.
local t, found = now(), {}
for _, id in ipairs(call('ZRANGEBYSCORE', leaving, '-inf', int(t), 'LIMIT', 0, ARGV[2])) do
  call('ZADD', leaving, int(t + tonumber(ARGV[3])), id)
  found[#found + 1] = call('HGET', left, id)
end
return found
