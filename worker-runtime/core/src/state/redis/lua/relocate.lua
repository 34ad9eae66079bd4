-- queue, queue that lanes move to, then lane and group of each lane. A claimed lane stays. Answers messages moved.
local from, to, moved = ARGV[1], ARGV[2], 0
for i = 3, #ARGV, 2 do
  local lane, group = ARGV[i], ARGV[i + 1]
  queue = from
  local entries = list(lane, group)
  local length = call('LLEN', entries)
  if length > 0 and call('HEXISTS', claims, lane .. ':' .. group) == 0 then
    local at = call('ZSCORE', waiting(group), lane)
    queue = to
    local there = list(lane, group)
    if call('EXISTS', there) == 0 then
      call('RENAME', entries, there)
    else
      -- Numbers rise along a lane.
      local id = call('INCRBY', J .. ':id', length) - length
      for _, entry in ipairs(call('LRANGE', entries, 0, -1)) do
        id = id + 1
        call('RPUSH', there, int(id) .. string.sub(entry, (string.find(entry, ':', 1, true))))
      end
      call('DEL', entries)
    end
    if call('ZADD', waiting(group), 'NX', at, lane) == 1 then
      call('SADD', J .. ':g:' .. to, group)
    end
    count(length)
    queue = from
    forget(lane, group)
    count(-length)
    moved = moved + length
  end
end
return moved
