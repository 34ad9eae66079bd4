-- queue, group, limit, lease: lanes with their heads, and whether an earlier claim was neither stepped nor given back.
-- While a lane is claimed, its time is the end of the claim, and its own time is remembered.
local group, ends = ARGV[2], int(now() + tonumber(ARGV[4]))
local lanes = call('ZRANGEBYSCORE', waiting(group), '-inf', int(now()), 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local claimed = {}
for i = 1, #lanes, 2 do
  local lane = lanes[i]
  local new = call('HSETNX', claims, lane .. ':' .. group, lanes[i + 1])
  call('ZADD', waiting(group), ends, lane)
  claimed[#claimed + 1] = { lane, call('LINDEX', list(lane, group), 0), 1 - new }
end
return claimed
