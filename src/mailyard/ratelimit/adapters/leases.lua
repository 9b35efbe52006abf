-- Renews the parts of one holder and gives it what is free: the rule of ratelimit.part_of.
-- KEYS: a hash for each claim, holder -> "held wanted void_at".
-- ARGV: the instant in milliseconds ("" for the server's own), the holder, for how many milliseconds
-- the parts are good, then for each claim: open, wanted, limit.
-- For each claim two numbers: held, target.
local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(ARGV[1])
end
local holder, good = ARGV[2], tonumber(ARGV[3])
local answers = {}
for place, key in ipairs(KEYS) do
  local at = place * 3 + 1
  local open, wanted, limit = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local parts, held_by_others, wanting, gone, last = {}, 0, wanted > 0 and 1 or 0, {}, now + good
  local all = redis.call('HGETALL', key)
  for index = 1, #all, 2 do
    local held, wants, void_at = string.match(all[index + 1], '^(%d+) (%d+) (%d+)$')
    held, wants, void_at = tonumber(held), tonumber(wants), tonumber(void_at)
    if void_at <= now then
      gone[#gone + 1] = all[index]
    elseif all[index] ~= holder then
      parts[#parts + 1] = {held, wants}
      held_by_others = held_by_others + held
      if wants > 0 then wanting = wanting + 1 end
      if void_at > last then last = void_at end
    end
  end
  local free = math.max(0, limit - open - held_by_others)
  local fair = math.max(1, math.floor(limit / math.max(1, wanting)))
  local hungry = false
  for _, part in ipairs(parts) do
    if part[1] < math.min(part[2], fair) then hungry = true end
  end
  local target = fair
  if not hungry then target = math.max(fair, limit - held_by_others) end
  target = math.min(wanted, target)
  local held = open + math.max(0, math.min(target - open, free))
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  if open > 0 or wanted > 0 then
    redis.call('HSET', key, holder, string.format('%d %d %.0f', held, wanted, now + good))
    redis.call('PEXPIRE', key, last - now + 10000)
  else
    redis.call('HDEL', key, holder)
  end
  answers[place * 2 - 1] = held
  answers[place * 2] = target
end
return answers
