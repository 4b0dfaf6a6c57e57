"""The workload in PyTorch eager: nn.Sequential, CrossEntropyLoss and SGD on tensors that stay on the device."""

from __future__ import annotations

import torch

from benchmarks.peers import workload


def main() -> None:
    parser = workload.options()
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    x, y = (torch.from_numpy(a).to(device) for a in workload.floats())
    net = torch.nn.Sequential(
        torch.nn.Linear(workload.INPUTS, workload.HIDDEN),
        torch.nn.Sigmoid(),
        torch.nn.Linear(workload.HIDDEN, workload.CLASSES),
    ).to(device)
    loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=workload.LEARNING_RATE)

    def epoch() -> float:
        order = torch.randperm(workload.SAMPLES, device=device)
        total = torch.zeros((), device=device)
        for rows in order.split(workload.BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_function(net(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        return float(total) / workload.SAMPLES

    workload.report(epoch, arguments.epochs)


if __name__ == "__main__":
    main()
