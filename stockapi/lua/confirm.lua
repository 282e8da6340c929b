-- CONFIRM: held becomes sold. It wins for as long as the hold is HELD, even past
-- the deadline: the sweeper has not given the units away yet.
-- KEYS[4] the hold. ARGV: 1 hold id, 2 payment reference, 3 retention ms.
-- OK record | DUP record (same payment) | CONFIRMED | CANCELLED | EXPIRED |
-- NONE | NOCELL | FROZEN mode.
local s = redis.call('GET', KEYS[4])
if not s then return {'NONE'} end
local h = unpack_hold(s)
if h[STATE] == 'C' then
  if h[REF] == ARGV[2] then return {'DUP', s} end
  return {'CONFIRMED'}
end
if h[STATE] == 'X' then return {'CANCELLED'} end
if h[STATE] == 'E' then return {'EXPIRED'} end
return resolve(KEYS[4], '', ARGV[1], h, 'C', 'confirm', ARGV[2], clock(), ARGV[3])
