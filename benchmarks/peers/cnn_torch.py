"""The convolutional workload in PyTorch eager: nn.Sequential, CrossEntropyLoss and SGD on resident tensors."""

from __future__ import annotations

import torch

from benchmarks.peers import cnn_workload, workload


def main() -> None:
    parser = workload.options()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels-last", action="store_true", help="memory format of pictures and kernels")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    torch.manual_seed(0)
    x, y = (torch.from_numpy(a).to(device) for a in cnn_workload.pictures())
    x, y = x.permute(0, 3, 1, 2).contiguous(memory_format=layout), y.long()
    first, second = cnn_workload.FILTERS
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, first, 3, padding="same"),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(first, second, 3, padding="same"),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(second * (cnn_workload.SIDE // 4) ** 2, cnn_workload.CLASSES),
    ).to(device, memory_format=layout)
    loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=cnn_workload.LEARNING_RATE)

    def epoch() -> float:
        order = torch.randperm(cnn_workload.SAMPLES, device=device)
        total = torch.zeros((), device=device)
        for rows in order.split(cnn_workload.BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        return float(total) / cnn_workload.SAMPLES

    cnn_workload.report(epoch, arguments.epochs)


if __name__ == "__main__":
    main()
