-- scope, id, answer, person or nothing, keep, bound: how many were put out early. Each commit also clears away two that
-- are over, so that the list of a scope never holds more than is kept.
local F, scope, id, person, keep = KEYS[1], ARGV[1], ARGV[2], ARGV[4], tonumber(ARGV[5])
local items, order = F .. 'i:' .. scope .. ':', F .. 'o:' .. scope
local function live_as_long(key)
  if call('PTTL', key) < keep then
    call('PEXPIRE', key, keep)
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
call('SET', items .. id, 'S' .. ARGV[3], 'PX', keep)
call('ZADD', order, int(micros()), id)
live_as_long(order)
for _, oldest in ipairs(call('ZRANGE', order, 0, 1)) do
  if not is_seen(oldest) then
    call('ZREM', order, oldest)
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
  local theirs, t = F .. 'p:' .. person, now()
  call('ZREMRANGEBYSCORE', theirs, '-inf', int(t))
  call('ZADD', theirs, int(t + keep), scope .. ':' .. id)
  live_as_long(theirs)
end
return early
