-- queue: messages, lanes.
local lanes = 0
for _, group in ipairs(call('SMEMBERS', groups)) do
  lanes = lanes + call('ZCARD', waiting(group))
end
return { tonumber(call('HGET', J, queue) or 0), lanes }
