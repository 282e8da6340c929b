-- PUBLISH: Kafka has acknowledged everything up to an event. The mark only moves
-- forward, whichever of two relays is late; what is trimmed is always below it.
-- ARGV: 1 epoch, 2 seq, 3 number of acknowledged events to keep.
-- NOCELL | OK pending.
local m = redis.call('HMGET', META, 'ep', 'seq', 'pub')
if not m[1] then return {'NOCELL'} end
local e, s = string.match(m[3], '^(%d+)-(%d+)$')
e, s = tonumber(e), tonumber(s)
local ne, ns, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if ne > e or (ne == e and ns > s) then
  redis.call('HSET', META, 'pub', ARGV[1] .. '-' .. ARGV[2])
  e, s = ne, ns
end
if s > keep then redis.call('XTRIM', OUT, 'MINID', int(e) .. '-' .. int(s - keep + 1)) end
local behind = tonumber(m[2])
if e == tonumber(m[1]) then behind = behind - s end
return {'OK', int(behind)}
