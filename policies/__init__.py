"""What is trained by imitation: diffusion and flow policies over chunks of actions."""
