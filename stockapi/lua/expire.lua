-- EXPIRE: a batch of holds whose hard deadline may have passed. Each is judged by
-- itself, by its own state and by the clock of Redis, so that a second sweeper, a
-- cancel or a confirm in between is harmless.
-- KEYS[4], KEYS[5] the first hold and its user's limit counters, and so on.
-- ARGV: 1 retention ms, 2… hold ids.
-- One string per hold: OK | EARLY | DONE | NONE | NOCELL | FROZEN.
local now, out = clock(), {}
for i = 2, #ARGV do
  local key, user = KEYS[2 * i], KEYS[2 * i + 1]
  local s = redis.call('GET', key)
  local h = s and unpack_hold(s)
  if not h or h[STATE] ~= 'H' then
    redis.call('ZREM', DUE, ARGV[i])
    out[#out + 1] = h and 'DONE' or 'NONE'
  elseif tonumber(h[HARD]) > now then
    out[#out + 1] = 'EARLY'
  else
    local r = resolve(key, user, ARGV[i], h, 'E', 'expire', 'deadline', now, ARGV[1])
    if r.err then return r end
    out[#out + 1] = r[1]
  end
end
return out
