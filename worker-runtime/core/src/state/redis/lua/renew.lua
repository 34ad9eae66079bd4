-- queue, lease, then lane and group of each claim.
local ends = int(now() + tonumber(ARGV[2]))
for i = 3, #ARGV, 2 do
  if call('HEXISTS', claims, ARGV[i] .. ':' .. ARGV[i + 1]) == 1 then
    call('ZADD', waiting(ARGV[i + 1]), 'XX', ends, ARGV[i])
  end
end
