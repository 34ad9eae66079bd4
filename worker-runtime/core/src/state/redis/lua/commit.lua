-- scope, id, answer, person or nothing, keep, bound: how many were put out early. Every sixteenth commit or so also clears
-- away thirty-two that are over, so that the list of a scope does not hold more than is kept for long.
local F, scope, id, person, keep = KEYS[1], ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local items, order = F .. 'i:' .. scope .. ':', F .. 'o:' .. scope
-- With an eighth in hand, so that it is not said again at each commit.
local function live_as_long(key)
  if call('PTTL', key) < keep then
    call('PEXPIRE', key, int(keep + keep / 8))
  end
end
local known = call('GETRANGE', items .. id, 0, 1)
if #known == 2 then
  return 0
end
-- One that is over may have been reserved again since.
local function is_seen(other)
  return call('GETRANGE', items .. other, 0, 0) == 'S'
end
local t = micros()
call('SET', items .. id, 'S' .. ARGV[3], 'PX', keep)
call('ZADD', order, int(t), id)
live_as_long(order)
local sweeps = t % 16 < 1
if sweeps then
  -- What was committed within the window is not over.
  for _, other in ipairs(call('ZRANGEBYSCORE', order, '-inf', int(t - keep * 1000), 'LIMIT', 0, 32)) do
    if not is_seen(other) then
      call('ZREM', order, other)
    end
  end
end
local early = 0
local excess = call('ZCARD', order) - tonumber(ARGV[6])
if excess > 0 then
  for i, oldest in ipairs(call('ZPOPMIN', order, excess)) do
    if i % 2 == 1 and is_seen(oldest) then
      early = early + call('DEL', items .. oldest)
    end
  end
end
if person ~= '' then
  local theirs, ms = F .. 'p:' .. person, math.floor(t / 1000)
  if sweeps then
    call('ZREMRANGEBYSCORE', theirs, '-inf', int(ms))
  end
  call('ZADD', theirs, int(ms + keep), scope .. ':' .. id)
  live_as_long(theirs)
end
return early
