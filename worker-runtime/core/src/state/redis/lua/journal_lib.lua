-- KEYS[1] is the journal's prefix, ARGV[1] the queue. An entry of a list is its number, a colon and its stored form.
local J, queue = KEYS[1], ARGV[1]
local claims = J .. ':c:' .. queue
local groups = J .. ':g:' .. queue
-- Messages that were taken out for good and are not forgotten: by when somebody ends them, and what they are.
local leaving, left = J .. ':o:' .. queue, J .. ':m:' .. queue
local function waiting(group)
  return J .. ':w:' .. queue .. ':' .. group
end
local function list(lane, group)
  return J .. ':l:' .. queue .. ':' .. lane .. ':' .. group
end
-- What has no number, and is nothing that we wrote, counts as 0.
local function number(entry)
  return string.match(entry, '^(%d+):') or '0'
end
local function due(text, t)
  if string.sub(text, 1, 1) == '+' and text ~= '+inf' then
    return int(t + tonumber(text))
  end
  return text
end
local function count(change)
  if call('HINCRBY', J, queue, change) <= 0 and call('EXISTS', leaving) == 0 then
    call('HDEL', J, queue)
  end
end
-- An empty list is gone by itself; this forgets the rest of the lane.
local function forget(lane, group)
  call('ZREM', waiting(group), lane)
  call('HDEL', claims, lane .. ':' .. group)
  if call('EXISTS', waiting(group)) == 0 then
    call('SREM', groups, group)
  end
end
