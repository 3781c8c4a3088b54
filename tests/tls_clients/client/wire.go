package main

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	checkMethod  = "/inventory.v1.Inventory/CheckAvailability"
	commitMethod = "/inventory.v1.Inventory/CommitReservation"
)

// rawCodec passes messages that are encoded already.
type rawCodec struct{}

func (rawCodec) Marshal(message any) ([]byte, error) {
	return *message.(*[]byte), nil
}

func (rawCodec) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (rawCodec) Name() string { return "proto" }

func appendText(message []byte, field protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(message, field, protowire.BytesType), text)
}

func appendNumber(message []byte, field protowire.Number, number uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(message, field, protowire.VarintType), number)
}

// fields returns the text fields and the integers of a message.
func fields(message []byte) (texts map[protowire.Number]string, numbers map[protowire.Number]uint64, err error) {
	texts, numbers = map[protowire.Number]string{}, map[protowire.Number]uint64{}
	for len(message) > 0 {
		field, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return nil, nil, protowire.ParseError(size)
		}
		message = message[size:]
		switch kind {
		case protowire.BytesType:
			var text []byte
			text, size = protowire.ConsumeBytes(message)
			texts[field] = string(text)
		case protowire.VarintType:
			numbers[field], size = protowire.ConsumeVarint(message)
		default:
			size = protowire.ConsumeFieldValue(field, kind, message)
		}
		if size < 0 {
			return nil, nil, protowire.ParseError(size)
		}
		message = message[size:]
	}
	return texts, numbers, nil
}

// check asks whether one unit is available, which it must be.
func check(ctx context.Context, conn *grpc.ClientConn, event string) error {
	request, answer := appendNumber(appendText(nil, 1, event), 2, 1), []byte(nil)
	if err := conn.Invoke(ctx, checkMethod, &request, &answer, grpc.ForceCodec(rawCodec{})); err != nil {
		return err
	}
	_, numbers, err := fields(answer)
	if err == nil && numbers[1] != 1 {
		err = fmt.Errorf("not available: %x", answer)
	}
	return err
}

// commit buys one unit for a new reservation.
func commit(ctx context.Context, conn *grpc.ClientConn, event, reservation string) error {
	request := appendNumber(appendText(appendText(nil, 1, reservation), 2, event), 3, 1)
	answer := []byte(nil)
	if err := conn.Invoke(ctx, commitMethod, &request, &answer, grpc.ForceCodec(rawCodec{})); err != nil {
		return err
	}
	texts, _, err := fields(answer)
	if err == nil && (!strings.HasPrefix(texts[1], "ord_") || texts[2] != "CONFIRMED") {
		err = fmt.Errorf("not confirmed: %v", texts)
	}
	return err
}
