-- queue, lane, group, number, lease, and for a head that waits on: its new description, due.
local lane, group, t = ARGV[2], ARGV[3], now()
local entries = list(lane, group)
local head = call('LINDEX', entries, 0)
if not head or number(head) ~= ARGV[4] then
  return { 'moved' }
end
local id = ARGV[4] .. ':'
local about = ARGV[6]
if about then
  -- The new description takes the place of the old one: four bytes of length, the description, the body.
  local a, b, c, d = string.byte(head, #id + 1, #id + 4)
  local body = string.sub(head, #id + 5 + ((a * 256 + b) * 256 + c) * 256 + d)
  call('LSET', entries, 0, id .. about .. body)
  call('HDEL', claims, lane .. ':' .. group)
  call('ZADD', waiting(group), due(ARGV[7], t), lane)
  return { 'waits' }
end
call('LPOP', entries)
count(-1)
local following = call('LINDEX', entries, 0)
if not following then
  forget(lane, group)
  return { 'empty' }
end
call('HSET', claims, lane .. ':' .. group, int(t))
call('ZADD', waiting(group), int(t + tonumber(ARGV[5])), lane)
return { 'head', following }
