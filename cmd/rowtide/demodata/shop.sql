-- The ticket shop of `rowtide demo`. Statements end with a semicolon at the end of
-- a line.
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.venue (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  name VARCHAR(80) NOT NULL,
  city VARCHAR(40) NOT NULL
);
CREATE TABLE shop.event (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  title VARCHAR(120) NOT NULL,
  venue_id BIGINT UNSIGNED NOT NULL,
  state ENUM('draft','on_sale','cancelled') NOT NULL DEFAULT 'on_sale',
  visible_at DATETIME(3) NOT NULL,
  sellable_at DATETIME(3) NOT NULL,
  rev BIGINT UNSIGNED NOT NULL DEFAULT 0,
  KEY event_venue (venue_id)
);
CREATE TABLE shop.session (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  event_id BIGINT UNSIGNED NOT NULL,
  starts_at DATETIME NOT NULL,
  hall VARCHAR(20) NULL,
  KEY session_event (event_id)
);
CREATE TABLE shop.price_tier (
  id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  event_id BIGINT UNSIGNED NOT NULL,
  name VARCHAR(20) NOT NULL,
  price DECIMAL(10,2) NOT NULL,
  KEY price_tier_event (event_id)
);
