-- Takes from the buckets KEYS, each for itself, in their order: the rule of ratelimit.gcra.
-- A bucket is one number, the instant at which it is full again, in seconds since EPOCH.
-- ARGV: the instant in seconds ("" for the server's own), then for each bucket
--   step     seconds by which the taking moves it on
--   allowed  how far from now it may be moved
--   owed     seconds of takings that were made elsewhere and are counted whatever they lead to
-- For each bucket a whole number of microseconds: 0 and more: taken, and full again in so many;
-- below 0: not taken, to be tried again in so many.
local EPOCH = 1700000000
local KEPT_MS = 10000  -- beyond the instant at which it is full: clocks of two servers differ
local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] - EPOCH + time[2] / 1000000
else
  now = tonumber(ARGV[1]) - EPOCH
end
local answers = {}
for place, key in ipairs(KEYS) do
  local at = place * 3 - 1
  local step, allowed, owed = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local full = tonumber(redis.call('GET', key) or now)
  if full < now then full = now end
  full = full + owed
  local wait = full + step - allowed - now
  local taken = wait <= 0.000001
  if taken then full = full + step end
  if (taken and step > 0) or owed > 0 then
    redis.call('SET', key, string.format('%.7f', full), 'PX', math.ceil((full - now) * 1000) + KEPT_MS)
  end
  if taken then
    answers[place] = math.floor((full - now) * 1000000 + 0.5)
  else
    answers[place] = -math.max(1, math.ceil(wait * 1000000))
  end
end
return answers
