package changes

import (
	"fmt"

	"github.com/IBM/sarama"
)

// Progress tells from outside how far the appliers' group has come.
type Progress struct {
	cfg    Config
	client sarama.Client
	admin  sarama.ClusterAdmin
}

// NewProgress asks over client, which stays the caller's.
func NewProgress(cfg Config, client sarama.Client) (*Progress, error) {
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, fmt.Errorf("ask for the offsets of group %s: %w", cfg.Group, err)
	}
	return &Progress{cfg, client, admin}, nil
}

// Ends gives the end of every partition that holds records now.
func (p *Progress) Ends() (map[int32]int64, error) {
	parts, err := p.client.Partitions(p.cfg.Topic)
	if err != nil {
		return nil, fmt.Errorf("list partitions of %s: %w", p.cfg.Topic, err)
	}
	ends := make(map[int32]int64, len(parts))
	for _, part := range parts {
		oldest, err := p.client.GetOffset(p.cfg.Topic, part, sarama.OffsetOldest)
		if err != nil {
			return nil, fmt.Errorf("ask for the start of %s/%d: %w", p.cfg.Topic, part, err)
		}
		newest, err := p.client.GetOffset(p.cfg.Topic, part, sarama.OffsetNewest)
		if err != nil {
			return nil, fmt.Errorf("ask for the end of %s/%d: %w", p.cfg.Topic, part, err)
		}
		if newest > oldest {
			ends[part] = newest
		}
	}
	return ends, nil
}

// Behind is how many records before ends the group has not acknowledged yet, as
// far as its committed offsets say.
func (p *Progress) Behind(ends map[int32]int64) (int64, error) {
	parts := make([]int32, 0, len(ends))
	for part := range ends {
		parts = append(parts, part)
	}
	got, err := p.admin.ListConsumerGroupOffsets(p.cfg.Group, map[string][]int32{p.cfg.Topic: parts})
	if err != nil {
		return 0, fmt.Errorf("ask for the offsets of group %s: %w", p.cfg.Group, err)
	}
	var n int64
	for part, end := range ends {
		b := got.GetBlock(p.cfg.Topic, part)
		if b == nil {
			return 0, fmt.Errorf("ask for the offset of group %s in %s/%d: no answer", p.cfg.Group, p.cfg.Topic, part)
		}
		if b.Err != sarama.ErrNoError {
			return 0, fmt.Errorf("ask for the offset of group %s in %s/%d: %w", p.cfg.Group, p.cfg.Topic, part, b.Err)
		}
		n += max(end-max(b.Offset, 0), 0)
	}
	return n, nil
}
