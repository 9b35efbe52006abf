-- Who is there: one step that also forgets who is not.
-- KEYS: a sorted set of ids by the instant at which they are gone, and a hash of what they said.
-- ARGV: the instant in milliseconds ("" for the server's own), what to do ("beat", "leave", "who"),
-- and where somebody is meant: the id, for how many milliseconds he is there, what he says.
-- What all say who are there.
local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
else
  now = tonumber(ARGV[1])
end
if ARGV[2] == 'beat' then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), ARGV[3])
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
elseif ARGV[2] == 'leave' then
  redis.call('ZREM', KEYS[1], ARGV[3])
  redis.call('HDEL', KEYS[2], ARGV[3])
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
return redis.call('HVALS', KEYS[2])
