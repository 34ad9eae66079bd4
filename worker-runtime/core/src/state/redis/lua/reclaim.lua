-- queue: every claimed lane has its own time again.
local held = call('HGETALL', claims)
for i = 1, #held, 2 do
  local lane, group = string.match(held[i], '^(%x+):(.*)$')
  call('ZADD', waiting(group), 'XX', held[i + 1], lane)
end
call('DEL', claims)
