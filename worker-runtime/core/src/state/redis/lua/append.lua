-- queue, then for each message: lane, group, due, stored form. A lane that exists keeps its time.
local t, messages = now(), (#ARGV - 1) / 4
local id = call('INCRBY', J .. ':id', messages) - messages
for i = 2, #ARGV, 4 do
  local lane, group = ARGV[i], ARGV[i + 1]
  id = id + 1
  call('RPUSH', list(lane, group), int(id) .. ':' .. ARGV[i + 3])
  if call('ZADD', waiting(group), 'NX', due(ARGV[i + 2], t), lane) == 1 then
    call('SADD', groups, group)
  end
end
count(messages)
