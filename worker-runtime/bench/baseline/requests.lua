-- Requests of a thousand users in turn, since what one user says is handled in order; each with an id of its own if a name
-- for these is given behind `--`.
local asked, run = 0, nil

init = function(arguments)
  run = arguments[1]
end

request = function()
  asked = asked + 1
  local path = wrk.path .. "&from_addr=" .. 27820000000 + asked % 1000
  if run then
    path = path .. "&id=" .. run .. "-" .. asked
  end
  return wrk.format("GET", path)
end
