-- KEYS[1] is the prefix of Vumi's failure worker, ARGV[1] a limit: for each retry its bucket, key, message and reason,
-- earliest bucket first. Removes buckets that hold nothing and retries whose failure is gone; how many of those.
local V, limit = KEYS[1], tonumber(ARGV[1])
local found, lost, lacking = {}, 0, limit
for _, bucket in ipairs(call('ZRANGE', V .. 'retry_timestamps', 0, -1)) do
  local due = V .. 'retry_keys.' .. bucket
  -- A set gives its members in any order; theirs are the times at which they failed.
  local keys = call('SMEMBERS', due)
  table.sort(keys)
  for _, key in ipairs(keys) do
    if lacking == 0 then
      break
    end
    local full = string.sub(key, 1, #V) == V and key or V .. key
    local failure = call('HMGET', full, 'message', 'reason')
    if failure[1] then
      lacking = lacking - 1
      found[#found + 1] = { bucket, key, failure[1], failure[2] or '' }
    else
      call('SREM', due, key)
      lost = lost + 1
    end
  end
  if call('EXISTS', due) == 0 then
    call('ZREM', V .. 'retry_timestamps', bucket)
  end
  if lacking == 0 then
    break
  end
end
return { lost, found, '0' }
