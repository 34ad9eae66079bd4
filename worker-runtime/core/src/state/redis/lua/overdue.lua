-- account, set of deadlines, skip, limit: how many rows are overdue, and the first of them after those skipped.
local key, t = L .. ARGV[2] .. ':' .. ARGV[1], int(now())
return { call('ZCOUNT', key, '-inf', t), call('ZRANGEBYSCORE', key, '-inf', t, 'LIMIT', ARGV[3], ARGV[4]) }
