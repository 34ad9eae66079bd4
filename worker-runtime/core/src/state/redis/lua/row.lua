-- message: JSON of its row.
settle(ARGV[1], now())
local row = call('GET', L .. 'r:' .. ARGV[1])
return row and json(row)
