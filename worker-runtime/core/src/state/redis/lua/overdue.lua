-- account, skip, limit: how many rows are overdue, and the first of them after those skipped.
local key, t = L .. 'd:' .. ARGV[1], int(now())
return { call('ZCOUNT', key, '-inf', t), call('ZRANGEBYSCORE', key, '-inf', t, 'LIMIT', ARGV[2], ARGV[3]) }
