CREATE TABLE IF NOT EXISTS venue (
  id   BIGINT PRIMARY KEY,
  name VARCHAR(200) NOT NULL,
  city VARCHAR(100) NOT NULL
);

CREATE TABLE IF NOT EXISTS event (
  id          BIGINT PRIMARY KEY,
  title       VARCHAR(200) NOT NULL,
  venue_id    BIGINT NOT NULL,
  visible_at  DATETIME(6) NOT NULL, -- UTC
  sellable_at DATETIME(6) NOT NULL
);

-- The stock API's table, as `rowtide stock` makes it.
CREATE TABLE IF NOT EXISTS stock_cell (
  event  VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  sku    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  cell   INT NOT NULL,
  avail  BIGINT NOT NULL,
  held   BIGINT NOT NULL,
  sold   BIGINT NOT NULL,
  loaded BIGINT NOT NULL,
  tin    BIGINT NOT NULL DEFAULT 0,
  tout   BIGINT NOT NULL DEFAULT 0,
  epoch  BIGINT NOT NULL,
  seq    BIGINT NOT NULL,
  PRIMARY KEY (event, sku, cell)
);

INSERT IGNORE INTO venue VALUES (5, 'Globe', 'London');
INSERT IGNORE INTO event VALUES
  (1, 'Hamlet', 5, '2026-01-01 08:00:00', '2026-01-01 10:00:00'),
  (2, 'Macbeth', 5, '2026-01-01 08:00:00', '2030-01-01 10:00:00');
INSERT IGNORE INTO stock_cell (event, sku, cell, avail, held, sold, loaded, epoch, seq) VALUES
  ('1', 'A', 0, 100, 0, 0, 100, 1, 0), ('1', 'B', 0, 0, 0, 50, 50, 1, 0);
