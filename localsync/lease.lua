-- The lease of one key: who of the fleet loads it.
-- KEYS[1] the lease, ARGV[1] what to do, ARGV[2] the holder's token (32 bytes).
-- take: KEYS[2] the key to be loaded, ARGV[3] how long in milliseconds, ARGV[4] the
--   first 40 bytes that the caller read there, ARGV[5] the caller's name (16 bytes)
--   if it will wait, or nothing. Returns moved (the key has changed since it was
--   read), taken, or held (by another node; the caller's name is noted).
-- free: returns the names of those who wait, one after the other.
--
-- The value of a lease is the token, then the names. A freed one is empty and ends
-- in a millisecond: nothing here needs the right to delete.
local lease = redis.call('GET', KEYS[1])
local mine = lease and string.sub(lease, 1, 32) == ARGV[2]
if ARGV[1] == 'free' then
  if not mine then return '' end
  redis.call('SET', KEYS[1], '', 'PX', '1')
  return string.sub(lease, 33)
end
if redis.call('GETRANGE', KEYS[2], '0', '39') ~= ARGV[4] then return 'moved' end
if mine then return 'taken' end
if not lease or lease == '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 'taken'
end
if ARGV[5] ~= '' and not string.find(lease, ARGV[5], 33, true) then
  redis.call('SET', KEYS[1], lease .. ARGV[5], 'KEEPTTL')
end
return 'held'
