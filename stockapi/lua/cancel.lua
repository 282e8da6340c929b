-- CANCEL: the units go back, once.
-- KEYS[4] the hold, KEYS[5] its user's limit counters.
-- ARGV: 1 hold id, 2 reason, 3 retention ms.
-- OK record | DUP record | CONFIRMED | EXPIRED | NONE | NOCELL | FROZEN mode.
local s = redis.call('GET', KEYS[4])
if not s then return {'NONE'} end
local h = unpack_hold(s)
if h[STATE] == 'X' then return {'DUP', s} end
if h[STATE] == 'C' then return {'CONFIRMED'} end
if h[STATE] == 'E' then return {'EXPIRED'} end
return resolve(KEYS[4], KEYS[5], ARGV[1], h, 'X', 'cancel', ARGV[2], clock(), ARGV[3])
