-- account, limit: how many rows are overdue, and the first of them.
local key, t = L .. 'd:' .. ARGV[1], int(now())
return { call('ZCOUNT', key, '-inf', t), call('ZRANGEBYSCORE', key, '-inf', t, 'LIMIT', 0, ARGV[2]) }
