-- HOLD: all items or none.
-- KEYS[4] the hold, KEYS[5] the user's limit counters.
-- ARGV: 1 hold id, 2 user, 3 fingerprint, 4 epoch (0: any), 5 ttl ms, 6 grace ms,
-- 7 outbox cap, 8 order, 9 items 'sku,q;…', 10 limits 'field,n,max;…'.
-- OK record | DUP record | FP | NOCELL | EPOCH ep | FROZEN mode | NOT_YET ms |
-- ENDED ms | BACKPRESSURE n | LIMIT index used | NO_SKU sku | SHORT sku av hd.
-- A refusal writes nothing.

-- (1) A retry is never judged by today's stock: first the record, then the rest.
local old = redis.call('GET', KEYS[4])
if old then
  if unpack_hold(old)[FP] ~= ARGV[3] then return {'FP'} end
  return {'DUP', old}
end

local items, want, seen = rows(ARGV[9]), {'ep', 'mode', 'seq', 'sat', 'end'}, {}
for _, it in ipairs(items) do
  if seen[it[1]] then return redis.error_reply('STOCK sku ' .. it[1] .. ' is twice in one hold') end
  seen[it[1]] = true
  want[#want + 1] = 'av:' .. it[1]
  want[#want + 1] = 'hd:' .. it[1]
end
local m = redis.call('HMGET', META, unpack(want))
-- (2) epoch and mode
if not m[1] then return {'NOCELL'} end
if ARGV[4] ~= '0' and ARGV[4] ~= m[1] then return {'EPOCH', m[1]} end
if m[2] ~= 'O' then return {'FROZEN', m[2]} end
-- (3) the window, by the clock of Redis: those of the API nodes may be wrong
local now, sat, fin = clock(), tonumber(m[4]), tonumber(m[5])
if now < sat then return {'NOT_YET', m[4]} end
if fin > 0 and now >= fin then return {'ENDED', m[5]} end
-- (4) the outbox is memory
local len = redis.call('XLEN', OUT)
if len >= tonumber(ARGV[7]) then return {'BACKPRESSURE', int(len)} end
-- (5) limits: they depend on the user alone
local limits, fields = rows(ARGV[10]), {}
for i, l in ipairs(limits) do fields[i] = l[1] end
if #fields > 0 then
  local used = redis.call('HMGET', KEYS[5], unpack(fields))
  for i, l in ipairs(limits) do
    local u = tonumber(used[i] or '0')
    if u + tonumber(l[2]) > tonumber(l[3]) then return {'LIMIT', int(i), int(u)} end
  end
end
-- (6) the stock of every item
local ev = {}
for i, it in ipairs(items) do
  local q, av = tonumber(it[2]), tonumber(m[2 * i + 4])
  if not av then return {'NO_SKU', it[1]} end
  if av < q then return {'SHORT', it[1], m[2 * i + 4], m[2 * i + 5]} end
  ev[i] = it[1] .. ',' .. it[2] .. ',' .. int(av - q)
end
redis.call('ZCARD', DUE) -- a wrong type shall fail before the first write

-- (7) writes
local seq = int(tonumber(m[3]) + 1)
local deadline = now + tonumber(ARGV[5])
local hard = int(deadline + tonumber(ARGV[6]))
local kept = {}
for i, l in ipairs(limits) do kept[i] = l[1] .. ',' .. l[2] end
local rec = table.concat({'H', ARGV[3], ARGV[2], ARGV[9], table.concat(kept, ';'), seq,
  int(deadline), hard, int(now), '0', '0', '', ARGV[8]}, '|')
emit(m[1], seq, 'hold', ARGV[1], ARGV[2], table.concat(ev, ';'), int(deadline), ARGV[8], '', '', now)
redis.call('HSET', META, 'seq', seq)
for _, it in ipairs(items) do
  redis.call('HINCRBY', META, 'av:' .. it[1], '-' .. it[2])
  redis.call('HINCRBY', META, 'hd:' .. it[1], it[2])
end
for _, l in ipairs(limits) do redis.call('HINCRBY', KEYS[5], l[1], l[2]) end
redis.call('SET', KEYS[4], rec)
redis.call('ZADD', DUE, hard, ARGV[1])
return {'OK', rec}
