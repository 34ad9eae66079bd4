-- queue, then numbers of messages on their way out: how many were there.
local gone = 0
for i = 2, #ARGV do
  call('ZREM', leaving, ARGV[i])
  gone = gone + call('HDEL', left, ARGV[i])
end
if call('EXISTS', leaving) == 0 and call('HGET', J, queue) == '0' then
  call('HDEL', J, queue)
end
return gone
