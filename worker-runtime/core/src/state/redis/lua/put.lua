-- message, expected version or nothing, version, state, final, keep, born, account, person, remote id, deadline or
-- nothing, JSON, batch, set of deadlines. Answers nothing, or the row that stays.
local id, expected, version, state, final = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local born, account, person, remote, deadline = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local t = now()
local row = call('GET', L .. 'r:' .. id)
-- Only what has ended can be over.
if row and select(3, head(row)) == '1' then
  settle(id, t)
  row = call('GET', L .. 'r:' .. id)
end
local old_person, old_remote, same_account = '', '', false
if row then
  local old_version, old_state, old_final, old_account, old_batch
  old_version, old_state, old_final, old_account, old_person, old_remote, old_batch = head(row)
  if old_version ~= expected then
    return json(row)
  end
  count_batch(old_account, old_batch, old_state, -1)
  if old_state ~= state or old_account ~= account then
    call('ZREM', L .. 's:' .. old_account .. ':' .. old_state, id)
  end
  same_account = old_account == account
  if same_account and deadline ~= '' then
    -- Its place in the set that it stays in is written over below.
    call('ZREM', L .. (ARGV[14] == 'd' and 'w' or 'd') .. ':' .. account, id)
  else
    undue(old_account, id)
  end
  if old_person ~= person then
    forget_person(old_person, id, call('LINDEX', L .. 't:' .. id, 0))
  end
  if old_remote ~= '' and (old_remote ~= remote or old_account ~= account) then
    unname(old_account, old_remote, id)
    old_remote = ''
  end
  if old_final == '1' and final == '0' then
    call('ZREM', L .. 'e', 'r:' .. id)
  end
end
if not same_account then
  call('SADD', L .. 'a', account)
end
if final == '1' then
  call('ZADD', L .. 'e', int(t + tonumber(ARGV[6])), 'r:' .. id)
end
count_batch(account, ARGV[13], state, 1)
local line = table.concat({ version, state, final, account, person, remote, ARGV[13] }, ':')
call('SET', L .. 'r:' .. id, line .. '\n' .. ARGV[12])
call('ZADD', L .. 's:' .. account .. ':' .. state, born, id)
if deadline ~= '' then
  call('ZADD', L .. ARGV[14] .. ':' .. account, deadline, id)
end
if person ~= '' and person ~= old_person then
  call('ZADD', L .. 'p:' .. person, born, id)
end
if remote ~= '' and remote ~= old_remote then
  give_name(account, remote, id)
end
return false
