-- queue, queue that lanes move to, messages to move one by one at most, queue whose parts both are, token of who moves them,
-- then lane and group of each lane. A claimed lane stays. Answers lanes finished and messages moved: the next lane may be
-- moved in part, its oldest messages first. Nothing if another one was appointed.
if call('HGET', J .. ':r', ARGV[4]) ~= ARGV[5] then
  return false
end
local from, to, room, moved, finished = ARGV[1], ARGV[2], tonumber(ARGV[3]), 0, 0
for i = 6, #ARGV, 2 do
  local lane, group = ARGV[i], ARGV[i + 1]
  queue = from
  local entries = list(lane, group)
  local length = call('LLEN', entries)
  local rest = 0
  if length > 0 and call('HEXISTS', claims, lane .. ':' .. group) == 0 then
    local at = call('ZSCORE', waiting(group), lane)
    queue = to
    local there = list(lane, group)
    if call('EXISTS', there) == 0 then
      call('RENAME', entries, there)
    else
      rest = math.max(length - room, 0)
      length = length - rest
      room = room - length
      -- Numbers rise along a lane.
      local id = call('INCRBY', J .. ':id', length) - length
      for _, entry in ipairs(length > 0 and call('LRANGE', entries, 0, length - 1) or {}) do
        id = id + 1
        local colon = string.find(entry, '^%d+:') and string.find(entry, ':', 1, true)
        call('RPUSH', there, int(id) .. (colon and string.sub(entry, colon) or ':' .. entry))
      end
      call('LTRIM', entries, length, -1)
    end
    if call('ZADD', waiting(group), 'NX', at, lane) == 1 then
      call('SADD', J .. ':g:' .. to, group)
    end
    count(length)
    queue = from
    if rest == 0 then
      forget(lane, group)
    end
    count(-length)
    moved = moved + length
  end
  if rest > 0 then
    break
  end
  finished = finished + 1
end
return { finished, moved }
