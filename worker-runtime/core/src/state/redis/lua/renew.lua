-- queue, lease, then lane and group of each claim. With a lease of 0 the claims end, and their lanes are due now.
local lease = tonumber(ARGV[2])
local ends = int(now() + lease)
for i = 3, #ARGV, 2 do
  local lane, group = ARGV[i], ARGV[i + 1]
  local claim = lane .. ':' .. group
  if call('HEXISTS', claims, claim) == 1 then
    call('ZADD', waiting(group), 'XX', ends, lane)
    if lease == 0 then
      call('HDEL', claims, claim)
    end
  end
end
