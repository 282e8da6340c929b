-- The stock tables. Statements are separated by a semicolon at the end of a line.
-- Plain columns and no foreign keys: MariaDB 10.5+ and MySQL 8.0.16+ read the same
-- text. Ids compare byte by byte. Times are UTC.

CREATE TABLE IF NOT EXISTS stock_event (
  event       VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  visible_at  DATETIME(3) NULL,
  sellable_at DATETIME(3) NULL,
  end_at      DATETIME(3) NULL,
  cells       INT NOT NULL,
  epoch       BIGINT NOT NULL,
  state       VARCHAR(16) NOT NULL,
  ver         BIGINT NOT NULL,
  PRIMARY KEY (event)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS stock_sku (
  event    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  sku      VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  initial  BIGINT NOT NULL,
  adjusted BIGINT NOT NULL DEFAULT 0,
  adj_seq  BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (event, sku)
) ENGINE=InnoDB;

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
  PRIMARY KEY (event, sku, cell),
  CONSTRAINT stock_cell_avail CHECK (avail >= 0),
  CONSTRAINT stock_cell_held CHECK (held >= 0),
  CONSTRAINT stock_cell_sold CHECK (sold >= 0)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS stock_detail (
  hold     CHAR(26) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  sku      VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  event    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  cell     INT NOT NULL,
  uid      VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  qty      BIGINT NOT NULL,
  state    VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  epoch    BIGINT NOT NULL,
  seq_held BIGINT NOT NULL,
  seq_end  BIGINT NOT NULL,
  deadline DATETIME(3) NOT NULL,
  order_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  pay_id   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  reason   VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  ts       DATETIME(3) NOT NULL,
  PRIMARY KEY (hold, sku),
  KEY stock_detail_user (event, uid),
  KEY stock_detail_state (event, cell, sku, state),
  KEY stock_detail_deadline (state, deadline),
  KEY stock_detail_order (order_id)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS stock_flow (
  event       VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  cell        INT NOT NULL,
  epoch       BIGINT NOT NULL,
  seq         BIGINT NOT NULL,
  sku         VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  type        VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  hold        CHAR(26) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  qty         BIGINT NOT NULL,
  avail_after BIGINT NOT NULL,
  ts          DATETIME(3) NOT NULL,
  PRIMARY KEY (event, cell, epoch, seq, sku)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS cell_pos (
  event    VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  cell     INT NOT NULL,
  epoch    BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  topic    VARCHAR(249) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  part     INT NOT NULL,
  off      BIGINT NOT NULL,
  PRIMARY KEY (event, cell),
  KEY cell_pos_part (topic, part, off)
) ENGINE=InnoDB;
